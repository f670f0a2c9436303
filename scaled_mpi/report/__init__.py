"""The machinery of the report: one self-contained HTML page, pictures first.

    write_report(folder, title, sections, Contents(Numbers(facts), pictures=[Pictures(...)]))

Numbers come only from facts, pictures only from fields. A section whose facts are missing is left
out, so the same call serves a finished job and a running one. matplotlib and Pillow are imported
while a page is written, never by importing this package.

A fact is a dict with `name`, `value`, `unit`, `stage`, `ranks` and its *places*
(`series.PLACES`; other keys are only shown). Of one name and place the last fact counts.
"""
