"""What a released package accepts, read from its source without importing it.

archives      a wheel, an sdist or an installed folder: texts by path
code          modules by syntax tree: names followed through imports, classes, static values
annotations   a type annotation -> types, choices, nested models
classes       dataclasses and pydantic models -> keys
signatures    functions -> keys
hydra         YAML trees with a defaults list -> keys
recipes       which of these a framework's documents are made of
snapshot      the result, as data and as text
"""
