"""Print the entries of requirements.lock that Rabbitry needs without any extra, hashes included."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Print the entries of the dependencies, which have no dependencies themselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~ \[;]", text)[0] for text in project["dependencies"]}
    lock = (ROOT / "requirements.lock").read_text()
    for entry in re.finditer(r"^([\w.-]+)==(?:.*\\\n)*.*\n", lock, re.MULTILINE):
        if entry[1] in names:
            print(entry[0], end="")


if __name__ == "__main__":
    main()
