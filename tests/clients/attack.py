#!/usr/bin/env python3
"""attack.py [--only 1.1,2.3,…]: what hostile clients, pages, peers and engines try, against the built program.

Who may reach what (1.x), and whether a few requests can take the service down (2.x). Engines are the fake engine, faulty.py,
and upstreams of this process; everything stays on the loopback device. One row for each case, with its outcome.
"""
import argparse
import resource

from attacks import Rows, crowd, loops, memory, paths, poison, secrets, terminals, web

SCENES = [scene for part in (web, secrets, paths, terminals, loops, poison, memory, crowd) for scene in part.SCENES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="numbers of scenes, such as 1.1,2.3")
    only = [number for number in parser.parse_args().only.split(",") if number]
    # Thousands of connections of our own.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = Rows()
    for number, scene in SCENES:
        if not only or number in only:
            print(f"{number} {scene.__doc__}", flush=True)
            rows.play(number, scene)
    rows.end()


if __name__ == "__main__":
    main()
