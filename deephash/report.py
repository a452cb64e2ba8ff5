"""Contact sheets: rows of pictures as one self-contained HTML page or one PNG. Knows pictures, no index."""

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from .image_errors import ImageError
from .images import ImageSource, thumbnail
from .paths import display_path, printable
from .writing import replacing

__all__ = ["Picture", "Row", "Sheet", "write_html", "write_png"]

_THUMBNAIL = 176
# Pictures up to this size (CIFAR-10) are shown large, their pixels as they are.
_SMALL = 64
_MARKS = {"hit": "#2e9e5b", "miss": "#d1495b", "query": "#3a6ea5", None: "#c8ccd2"}


@dataclass(frozen=True)
class Picture:
    """One picture with what stands under it; ``mark`` colours its frame.

    ``source`` None: there is no picture, only a caption. ``path`` is linked to when it is given.
    """

    source: "ImageSource | None"
    caption: str
    mark: Literal["hit", "miss", "query"] | None = None
    path: str | None = None


@dataclass(frozen=True)
class Row:
    """A picture and those found for it (or kept and dropped copies)."""

    first: Picture
    others: Sequence[Picture]


@dataclass(frozen=True)
class Sheet:
    """A titled list of rows; ``notes`` are lines of text under the title."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)


def write_html(sheet: Sheet, path: str | os.PathLike[str]) -> None:
    """Writes the sheet as one HTML file without outside references; an unreadable picture shows its reason instead."""
    notes = "".join(f"<p>{html.escape(printable(note))}</p>" for note in sheet.notes)
    rows = "".join(
        f'<section><div class="first">{_figure(row.first)}</div>'
        f'<div class="others">{"".join(map(_figure, row.others)) or "<p>nothing found</p>"}</div></section>'
        for row in sheet.rows
    )
    title = html.escape(printable(sheet.title))
    page = _PAGE.format(title=title, notes=notes, rows=rows, style=_STYLE)
    with replacing(path, "w") as file:
        file.write(page)


def write_png(sheet: Sheet, path: str | os.PathLike[str], *, max_rows: int = 40, max_columns: int = 13) -> None:
    """Writes the sheet as one PNG; what is beyond ``max_rows`` and ``max_columns`` is left out, and said so."""
    rows = sheet.rows[:max_rows]
    columns = max((min(1 + max(len(row.others), 1), max_columns) for row in rows), default=1)
    cell, text, gap, margin = 120, 18, 10, 24
    notes = list(sheet.notes)
    if len(sheet.rows) > max_rows:
        notes.append(f"the first {max_rows} of {len(sheet.rows):,} rows")
    if (longest := max((len(row.others) for row in rows), default=0)) >= max_columns:
        notes.append(f"the first {max_columns - 1} of up to {longest:,} pictures in a row")
    head = margin + 34 + 20 * len(notes) + 12
    width = margin * 2 + columns * (cell + gap) + gap * 2
    # A sheet of few columns must still hold its title.
    title_font, font, small = (ImageFont.load_default(size) for size in (22, 14, 12))
    width = max([width, *(margin * 2 + int(font.getlength(_latin(note))) for note in notes)])
    width = max(width, margin * 2 + int(title_font.getlength(_latin(sheet.title))))
    canvas = Image.new("RGB", (width, head + len(rows) * (cell + text + gap) + margin), "#ffffff")
    draw = ImageDraw.Draw(canvas)
    draw.text((margin, margin), _latin(sheet.title), fill="#1d2126", font=title_font)
    for i, note in enumerate(notes):
        draw.text((margin, margin + 34 + 20 * i), _latin(note), fill="#5a626c", font=font)
    for r, row in enumerate(rows):
        top = head + r * (cell + text + gap)
        for c, picture in enumerate([row.first, *row.others][:max_columns]):
            left = margin + c * (cell + gap) + (gap * 2 if c else 0)
            canvas.paste(_tile(picture.source, cell), (left, top))
            draw.rectangle((left - 3, top - 3, left + cell + 2, top + cell + 2), outline=_MARKS[picture.mark], width=3)
            caption = _fit(_latin(picture.caption), small, cell)
            draw.text((left + cell / 2, top + cell + 5), caption, fill="#1d2126", font=small, anchor="ma")
        if not row.others:
            beside = (margin + cell + gap * 3, top + cell / 2)
            draw.text(beside, "nothing found", fill="#5a626c", font=font, anchor="lm")
    with replacing(path) as file:
        canvas.save(file, "PNG", optimize=True)


def _figure(picture: Picture) -> str:
    mark = f' class="{picture.mark}"' if picture.mark else ""
    caption = html.escape(printable(picture.caption))
    title = f' title="{caption}"'
    body = _img(picture.source, caption)
    if picture.path is not None:
        title = f' title="{html.escape(display_path(picture.path))}"'
        body = f'<a href="{html.escape(Path(os.path.abspath(picture.path)).as_uri())}">{body}</a>'
    return f"<figure{mark}{title}>{body}<figcaption>{caption}</figcaption></figure>"


def _img(source: "ImageSource | None", alt: str) -> str:
    if source is None:
        return '<div class="lost">no picture</div>'
    try:
        image = thumbnail(source, _THUMBNAIL)
    except ImageError as error:
        return f'<div class="lost">{html.escape(printable(error.reason))}</div>'
    is_small = max(image.size) <= _SMALL
    kind, css = ("PNG", ' class="small"') if is_small else ("JPEG", "")
    stream = io.BytesIO()
    image.save(stream, kind, quality=85)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img{css} alt="{alt}" src="data:image/{kind.lower()};base64,{data}">'


def _tile(source: "ImageSource | None", size: int) -> Image.Image:
    tile = Image.new("RGB", (size, size), "#f1f2f4")
    try:
        image = None if source is None else thumbnail(source, size)
    except ImageError:
        image = None
    if image is None:
        text = "no picture" if source is None else "not readable"
        ImageDraw.Draw(tile).text((size / 2, size / 2), text, fill="#5a626c", anchor="mm")
        return tile
    scale = size / max(image.size)
    if scale > 1:
        method = Image.Resampling.NEAREST if max(image.size) <= _SMALL else Image.Resampling.BICUBIC
        image = image.resize([max(1, round(side * scale)) for side in image.size], method)
    tile.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return tile


def _latin(text: str) -> str:
    """Pillow's built-in font draws one line of Latin-1 alone: the rest becomes question marks."""
    return printable(text).encode("latin-1", "replace").decode("latin-1")


def _fit(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """Shortens text to ``width`` pixels in its middle: names of photographs differ at their ends."""
    for n_kept in range(len(text), 0, -1):
        shown = text if n_kept == len(text) else f"{text[: n_kept - n_kept // 2]}...{text[len(text) - n_kept // 2 :]}"
        if font.getlength(shown) <= width:
            return shown
    return ""


_STYLE = """
:root{color-scheme:light dark;--side:clamp(84px,7.2vw,148px);
 --ground:#fff;--ink:#1d2126;--soft:#5a626c;--line:#e3e5e9;--frame:#c8ccd2}
@media(prefers-color-scheme:dark){:root{--ground:#15181c;--ink:#e8eaed;--soft:#9aa3ad;--line:#2a2f36;--frame:#434a53}}
*{box-sizing:border-box}
body{margin:0;padding:24px;background:var(--ground);color:var(--ink);font:14px/1.4 system-ui,sans-serif}
h1{font-size:20px;margin:0 0 6px;overflow-wrap:anywhere}p{margin:2px 0;color:var(--soft)}
main{margin-top:18px}
section{display:flex;gap:18px;padding:12px 0;border-top:1px solid var(--line)}
.first{flex:none}.others{display:flex;flex-wrap:wrap;gap:10px;min-width:0}
figure{margin:0;width:var(--side)}
img,.lost{width:var(--side);height:var(--side);object-fit:contain;display:block;border:3px solid var(--frame);
 border-radius:6px;background:var(--line)}
img.small{image-rendering:pixelated}
.lost{padding:8px;font-size:12px;color:var(--soft);overflow:hidden}
figure.hit img{border-color:#2e9e5b}figure.miss img{border-color:#d1495b}figure.query img{border-color:#3a6ea5}
figure.hit .lost{border-color:#2e9e5b}figure.miss .lost{border-color:#d1495b}figure.query .lost{border-color:#3a6ea5}
figcaption{font-size:12px;line-height:1.3;margin-top:3px;text-align:center;overflow:hidden;overflow-wrap:anywhere;
 display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2}
@media(max-width:700px){section{flex-direction:column}}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>{notes}<main>{rows}</main></body></html>
"""
