// Where the lines of a grid lie: sections one below the other, each with a heading or none, and rows of tiles.

/** The geometry of a grid. ``sections``: ``{n, hasHeading}``; lengths in pixels. */
export class Lines {
  constructor(sections, { columns, tile, gap, heading }) {
    this.columns = columns;
    this.pitch = tile + gap;
    this.sections = [];
    let top = 0;
    let line = 0;
    for (const { n, hasHeading } of sections) {
      const above = hasHeading ? heading : 0;
      const rows = Math.ceil(n / columns);
      this.sections.push({ n, top, above, rows, line });
      top += above + rows * this.pitch;
      line += (hasHeading ? 1 : 0) + rows;
    }
    this.height = top;
    this.count = line;
  }

  /** Returns the lines that touch a stretch: ``{section, row, y, number}``; row -1 is the heading. */
  between(from, to) {
    const found = [];
    this.sections.forEach(({ top, above, rows, line }, section) => {
      if (top > to || top + above + rows * this.pitch < from) return;
      if (above > 0 && top + above > from) found.push({ section, row: -1, y: top, number: line + 1 });
      const start = Math.max(0, Math.floor((from - top - above) / this.pitch));
      const stop = Math.min(rows, Math.ceil((to - top - above) / this.pitch));
      const first = line + (above > 0 ? 2 : 1);
      for (let row = start; row < stop; row++) {
        found.push({ section, row, y: top + above + row * this.pitch, number: first + row });
      }
    });
    return found;
  }

  /** Returns the top of the line of a tile. */
  topOf(section, index) {
    const { top, above } = this.sections[section];
    return top + above + Math.floor(index / this.columns) * this.pitch;
  }

  /** Returns the tile that lies so many tiles before or after another, in reading order, across sections. */
  step(section, index, by) {
    let wanted = index + by;
    while (wanted < 0 && section > 0) wanted += this.sections[--section].n;
    while (wanted >= this.sections[section].n && section < this.sections.length - 1) {
      wanted -= this.sections[section++].n;
    }
    return { section, index: Math.min(Math.max(0, wanted), Math.max(0, this.sections[section].n - 1)) };
  }
}
