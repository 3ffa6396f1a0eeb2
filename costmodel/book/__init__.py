"""The report: what networks cost, as a page with the book's questions answered; `write.write_report` writes it."""
