"""Looks for words in every value of every table of a record, and in the bytes of every file of its folder.

Usage: find_in_record.py DATA_DIR WORD…
A word is text, or bytes as x'hex'.
Prints where each was found, one line each.
"""

import pathlib
import sys

import pyarrow.parquet

folder, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
for path in sorted(path for path in folder.rglob("*") if path.is_file()):
    content = path.read_bytes()
    if path.suffix == ".parquet":
        # Values are compressed: read them as well.
        content += repr(pyarrow.parquet.ParquetFile(path).read().to_pylist()).encode()
    for word in words:
        wanted = bytes.fromhex(word[2:-1]) if word.startswith("x'") else word.encode()
        if wanted in content:
            print(f"{word} in {path.relative_to(folder)}")
