"""Attack a service of its own in every way that was ever found: ``python -m tests.attacks``.

Every attack is bounded in count and time and goes to loopback only.
"""

import argparse
import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

import tests.attacks
from tests.attacks.attack import Attack
from tests.service import RunningService

_BEGIN, _END = "<!-- attacks: begin -->\n", "<!-- attacks: end -->\n"


def list_attacks() -> list[Attack]:
    """Every attack that a module of this package offers as ``ATTACKS``."""
    names = [module.name for module in pkgutil.iter_modules(tests.attacks.__path__)]
    modules = [importlib.import_module(f"tests.attacks.{name}") for name in names if name[0] != "_"]
    return [attack for module in modules for attack in getattr(module, "ATTACKS", ())]


def run_attack(attack: Attack) -> tuple[str, bool]:
    """What happens now, and whether the bound holds."""
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        service = RunningService(Path(folder) / "data", attack.launcher, **attack.environment)
        try:
            return attack.run(service), True
        except AssertionError as error:
            return f"**broken**: {error}", False
        finally:
            service.stop()


def write_table(document: Path, rows: list[str]) -> None:
    """Put the table between the document's two marks, which must be there."""
    before, begin, rest = document.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin and end, f"{document} has no marks for the table"
    head = "| attack | at e62be41 | now |\n|---|---|---|\n"
    document.write_text(f"{before}{_BEGIN}\n{head}{''.join(rows)}\n{_END}{after}")


def main() -> None:
    """Run the attacks that the command line names. Exit code 1 when one succeeds."""
    attacks = {attack.name: attack for attack in list_attacks()}
    parser = argparse.ArgumentParser("python -m tests.attacks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=attacks, metavar="NAME", default=list(attacks))
    parser.add_argument("--list", action="store_true", help="print the attacks' names and end")
    parser.add_argument("--document", type=Path, help="page whose table to write")
    arguments = parser.parse_args()
    if arguments.list:
        print(*(f"{attack.name:24} {attack.what}" for attack in attacks.values()), sep="\n")
        return
    rows, all_hold = [], True
    for number, name in enumerate(arguments.only, 1):
        attack = attacks[name]
        print(f"{number}/{len(arguments.only)} {name}: {attack.what}", flush=True)
        now, holds = run_attack(attack)
        print(f"    {now}", flush=True)
        rows.append(f"| {attack.what} | {attack.before} | {now} |\n")
        all_hold = all_hold and holds
    if arguments.document:
        write_table(arguments.document, rows)
    sys.exit(not all_hold)


if __name__ == "__main__":
    main()
