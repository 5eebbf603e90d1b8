for (const head of document.querySelectorAll('th')) {
  const sort = () => {
    const table = head.closest('table'), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute('aria-sort') !== 'descending';
    for (const other of table.querySelectorAll('th')) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const unit = {k: 1e3, M: 1e6, G: 1e9};
    const value = row => {
      const text = row.cells[column].textContent.replace('\u2212', '-').replace('< ', '');
      const match = text.match(/^-?[0-9.]+([kMG]?)/);
      return match ? parseFloat(text) * (unit[match[1]] || 1) : null;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) {
        const words = a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        return (x === null) - (y === null) || (down ? words : -words);
      }
      return down ? y - x : x - y;
    });
    body.append(...rows);
  };
  head.tabIndex = 0;
  head.addEventListener('click', sort);
  head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
}
