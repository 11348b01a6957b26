import itertools
import sys

servers = sys.argv[1:]
if not servers:
    sys.exit("no server")
for line, server in zip(sys.stdin, itertools.cycle(servers), strict=False):
    print(line.strip(), server)
