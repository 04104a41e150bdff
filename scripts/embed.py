"""Makes a C table of the files of a directory, each as it is and compressed: embed.py DIRECTORY OUT.c DEPFILE EXTRA…

EXTRA files are added under their own name.  DEPFILE gets the names of all files, and of the folders, for Ninja.  See src/web/assets.h.
"""
import gzip
import hashlib
import pathlib
import sys

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml", ".json": "application/json", ".png": "image/png"}


def array(name, data):
    lines = [", ".join(map(str, data[i:i + 24])) for i in range(0, len(data), 24)]
    return f"static const unsigned char {name}[] = {{\n" + ",\n".join(lines) + "};\n"


def main():
    root, out, deps = map(pathlib.Path, sys.argv[1:4])
    extra = [pathlib.Path(p) for p in sys.argv[4:]]
    files = [("/" + str(p.relative_to(root)), p) for p in sorted(root.rglob("*")) if p.is_file() and p.suffix in TYPES]
    files += [("/" + p.name, p) for p in extra]
    text, rows = '#include "web/assets.h"\n\n', []
    for i, (path, p) in enumerate(files):
        data = p.read_bytes()
        small = gzip.compress(data, 9, mtime=0)
        etag = hashlib.sha256(data).hexdigest()[:16]
        text += array(f"plain_{i}", data) + array(f"gzip_{i}", small)
        forever = "true" if path.startswith("/assets/") else "false"
        rows.append(f'    {{"{path}", "{TYPES[p.suffix]}", "\\"{etag}\\"", plain_{i}, gzip_{i}, {len(data)}, {len(small)}, {forever}}},\n')
    text += "\nconst struct asset assets[] = {\n" + "".join(rows) + "};\nconst size_t assets_n = sizeof assets / sizeof assets[0];\n"
    out.write_text(text)
    read = [root] + [p for p in root.rglob("*") if p.is_dir()] + [p for _, p in files]
    deps.write_text(f"{out}: " + " ".join(str(p).replace(" ", "\\ ") for p in read) + "\n")


if __name__ == "__main__":
    main()
