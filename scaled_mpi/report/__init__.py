"""The machinery of the report: one self-contained HTML page, pictures first.

    write_report(folder, title, sections, Contents(Numbers(facts), pictures=[Pictures(...)]))

Numbers come only from facts, pictures only from fields. A section without its facts is left out;
so one call serves finished and running jobs. Importing this package imports neither matplotlib
nor Pillow; writing a page does.

A fact is a dict with `name`, `value`, `unit`, `stage`, `ranks` and its *places*
(`series.PLACES`; other keys are only shown). The last fact of a name and place counts.
"""
