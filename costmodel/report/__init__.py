"""Results as tables: the columns of each, and how they are shown in a terminal, as Markdown, HTML, CSV and JSON."""
