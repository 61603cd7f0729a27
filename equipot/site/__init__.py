"""The site of the documentation, by one command: ``python -m equipot.site --out DIR`` in a checkout.

    guide       the README, cut at its headings into pages; notebooks with their outputs; files that texts link to
    settings    every key of every config, from the dataclasses that hold them
    commands    every command and option, from the parser of the command line
    api         every public name, from docstrings

The pages are made by Sphinx (``pip install '.[docs]'``), whose warnings are errors. Nothing is executed but imports.
"""
