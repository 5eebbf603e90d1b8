"""The data set card: `card.json` for programs, `card.html` to look at, `skipped.jsonl` for the items that failed."""
