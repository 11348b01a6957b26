"""Checks the package's public types with pyright, which infers otherwise than mypy does.

At least 99 % of the public names have a known type, all of those in the client and in flow; and a program that uses the
public API is clean in strict mode. Part of `make check`.
"""

import json
import os
import subprocess
import sys

_LEAST = 0.99
_WHOLE = ("rabbitry.amqp.client.", "rabbitry.flow.")
_PROGRAM = "tests/support/typed_program.py"


def _pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pyright of this environment with [tool.pyright] of pyproject.toml."""
    folder = os.path.dirname(sys.executable)
    environment = os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # else it asks a registry for newer versions
    }
    return subprocess.run(
        [sys.executable, "-m", "pyright", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def main() -> int:
    """Print what is wrong, and return 1 if anything is."""
    strict = _pyright(_PROGRAM)
    if strict.returncode:
        print(strict.stdout, strict.stderr, file=sys.stderr)
        return 1
    verified = _pyright("--verifytypes", "rabbitry", "--ignoreexternal", "--outputjson")
    try:
        completeness = json.loads(verified.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        print(verified.stdout, verified.stderr, file=sys.stderr)
        return 1
    unknown = [
        f"{symbol['name']}: {symbol['diagnostics'][0]['message'].splitlines()[0]}"
        for symbol in completeness["symbols"]
        if (not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]) and symbol["diagnostics"]
    ]
    score = completeness["completenessScore"]
    print(f"pyright knows {score:.1%} of the public types")
    faults = unknown if score < _LEAST else [line for line in unknown if line.startswith(_WHOLE)]
    for line in faults:
        print(line, file=sys.stderr)
    return 1 if faults or score < _LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
