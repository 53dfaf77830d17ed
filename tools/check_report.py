"""What `tools/check_dataset.py` prints and writes."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.data.findings import ERROR, SEVERITIES, Collector, FileError, Finding
from utils.data.layout import DatasetInfo
from utils.data.pixel_checks import Scanned, pixel_findings, read_pixels
from utils.data.summary import histogram_rows, summary, summary_rows
from utils.evaluation.contact_sheet import draw_contact_sheet
from utils.evaluation.report import align, write_csv
from utils.files import replacing
from utils.training.announce import decisions_table, labels_table
from utils.training.setup import read_dataset


def examine(options: argparse.Namespace) -> tuple[DatasetInfo | None, Scanned, list[Finding]]:
    """Read a data set of these flags, going on after every mistake, and return what was found.

    Returns:
        The data set as far as it can be read, None where not a single image can; what its pixels say, per
        split; and the findings.
    """
    report = Collector()
    try:
        data = read_dataset(options, report)
    except FileError as error:
        report(error)
        return None, {}, report.findings()
    scanned = {} if options.QUICK else read_pixels(data.parts, report, options.NUM_WORKERS)
    found = [*data.findings, *pixel_findings(scanned, data.band_names)]
    return data, scanned, [*report.findings(), *found]


def describe(data: DatasetInfo, scanned: Scanned, folder: Path) -> None:
    """Print what a data set consists of, write it as JSON, and draw the contact sheet."""
    facts = summary(data, scanned)
    rows = [(name, text, "") for name, text in summary_rows(facts)]
    print(f"found: {data.found}", *data.remarks, "", *decisions_table(rows), "", sep="\n")
    print(*labels_table(data), "", *align(histogram_rows(data)), "", sep="\n")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "summary.json") as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    draw_contact_sheet(data, folder / "contact_sheet.png", str(data.root))


def tell(findings: Sequence[Finding], root: str, folder: Path) -> bool:
    """Print one line per finding, the worst first, and write them as CSV; return whether one is an error."""
    findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    print(*(finding.line(root) for finding in findings), sep="\n", end="\n" if findings else "")
    counts = Counter(finding.severity for finding in findings)
    words = [f"{counts[name]} {name}{'s' if counts[name] != 1 else ''}" for name in SEVERITIES]
    harm = "training would be harmed" if counts[ERROR] else "nothing that harms training"
    print(f"{', '.join(words)}: {harm}")
    rows = [("severity", "kind", "finding", "file", "detail", "advice")]
    for finding in findings:
        for name, detail in finding.files or (("", ""),):
            rows.append((finding.severity, finding.kind, finding.what, name, detail, finding.todo))
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "findings.csv", rows)
    return counts[ERROR] > 0
