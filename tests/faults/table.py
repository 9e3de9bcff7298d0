"""The table of docs/faults.md: `python -m tests.faults.table LEDGER...` prints it, `--write` puts it into the page.

A ledger is what `--fault-table` has tests write; the table is of the sum of all that are named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.faults.ledger import FAULTS, Ledger, read

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- faults: made by python -m tests.faults.table --write -->\n", "<!-- end of faults -->"


def table(ledger: Ledger) -> str:
    """In Markdown, with the seeds below."""
    lines = ["| fault | times tried | trials lost | trials repeated | result equal |", "|---|---|---|---|---|"]
    for fault in FAULTS:
        if fault in ledger.rows:
            row = ledger.rows[fault]
            equal = "yes" if row["equal"] else "**no**"
            lines.append(f"| {fault} | {row['tried']} | {row['lost']} | {row['repeated']} | {equal} |")
    seeds = [f"{fault}: {', '.join(map(str, row['seeds']))}" for fault, row in ledger.rows.items() if row["seeds"]]
    return "\n".join([*lines, "", f"Seeds of the random moments: {'; '.join(seeds) or 'none'}.", ""])


def put_into(page: str, made: str) -> str:
    """The page with another table."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + made + END + rest.partition(END)[2]


def main() -> None:
    said = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.faults.table", description=said)
    parser.add_argument("ledgers", nargs="+", type=Path, metavar="LEDGER", help="files that --fault-table has written")
    parser.add_argument("--write", action="store_true", help="into docs/faults.md")
    options = parser.parse_args()
    made = table(read(options.ledgers))
    if options.write:
        PAGE.write_text(put_into(PAGE.read_text(), made))
    else:
        print(made, end="")


if __name__ == "__main__":
    main()
