"""The report: what networks cost, as chapters of sentences, tables and figures, written as one page and as Markdown.

`write.write_report` writes it. The way of a number: `study` traces, counts and predicts a network, each thing once;
a chapter derives its numbers from studies, once each; its template says them; `engine` makes a section of blocks
(`model`) of both; `compose` puts the sections in order; `markdown` and `html` render them; `folder` saves them. Beside
the report stands numbers.json: every number that a sentence says, under its chapter and name, for readers and tests.

**A chapter is two files in chapters/ and a test.**

1. NAME.py computes and says nothing. A frozen dataclass `Numbers` has a field for each value that a sentence needs:
   raw, in base units, with the unit in its name (`peak_bytes`, `bound_seconds`, `fc_share`, `limit_ratio`) and a line
   of meaning where the name does not say all; None is "not known" or "does not apply". `numbers(...)` derives them,
   and `NAME(...)` returns an `engine.Chapter` with them, and with its tables and figures:

       return Chapter("batch", numbers(study, device), tables={"batch": Table(file_name, view.Table.of(columns, rows))},
                      figures={"batch": Figure(file_name, draw=lambda: plots.batches(curves)[0])})

   No sentence, title, note or plural stands here, and no number is turned into text. What is said several times over
   (of each network, of each device) is a tuple of smaller dataclasses. A verdict or a cause ("memory binds it") is a
   field that is computed, or it is not said. A table is a `view.Table`: columns of the schema, or `view.Column`s of its
   own, in base units; tidy, with no batch in a column's name: `across="batch"` lets a page show batches side by side.

2. NAME.md.j2 holds all that is said, as Markdown (see `engine`): heading, answer, paragraphs, formulas, and titles and
   notes of tables and figures; `{{ table("batch", bound_seconds="least time") }}` heads a column in other words than
   the schema. Numbers enter by a filter that says the unit: `{{ n.peak_bytes | iec }}`. `{% if %}` leaves out what does
   not apply to a network, and says so where a reader would miss it. What English does with numbers and lists
   ("1 layer", "a, b and c") is in chapters/words.j2: `{{ words.counted(n.layers, "layer") }}`. To translate a chapter
   is to write another template: tests/book/batch.de.md.j2 is one.

3. tests/test_book_numbers_NAME.py holds **every** field of `Numbers` to a value that is derived another way: by hand
   from the layers' shapes, by another program, by a second formula, by a plain loop over the trace.
   `holding.hold(numbers, {...})` compares them leaf by leaf and fails for a field that nothing derives.

Then place it in `compose` (or below its parent: `section(parent, [section(child)])`). Names of networks, layers and
devices come from outside: templates escape them, so hand them over as they are.
"""
