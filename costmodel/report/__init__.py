"""Reports: results as tables, plots, Markdown and HTML, and the one command that writes them all into a folder.

`write.write_report` is that command. It gathers results (`study`), answers the book's questions from them
(`exercises`), puts them into one report (`compose`, `sections`, `model`), renders it (`markdown`, `html`) and saves it
(`folder`).
"""
