"""Messages of a rosbag2 sqlite3 file in recording order. The file is never changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.io.bag_errors import (
    MAX_CHUNK_BYTES,
    BagError,
    BagMessage,
    BagTopic,
    MessageExpander,
    size_text,
)

TABLES = ("topics", "messages")
"""Required tables. None of rosbag2's tables may be a view, because a view can be endless."""
_OTHER_TABLES = ("schema", "metadata", "message_definitions")
_MIN_ROW_BYTES = 6
"""No message takes fewer bytes of the file; this detects a damaged tree that repeats its pages."""
MAX_TOPICS = 10_000
_BATCH = 100_000


class SqliteFile:
    """An open .db3 file."""

    def __init__(self, path: Path, copied: bool = False, name: Path | None = None) -> None:
        """copied: the file is our copy, with the recording's write-ahead log beside it, and sqlite may change
        it; name: of the bag, for messages. Raises BagError for a file that is damaged or not a bag."""
        self.path = name or path
        self.losses: list[str] = []
        """Always empty: no part of a database is left out."""
        self._size = path.stat().st_size
        if copied:
            self._size += sum(file.stat().st_size for file in path.parent.glob(path.name + "-*"))
        if not self._size:
            raise BagError(f"The bag {self.path} is empty: it has no bytes.")
        # Quote the path, so that % ? and # do not become part of the URI. Immutable: no lock, no -shm file.
        address = path.resolve().as_uri() + ("" if copied else "?mode=ro&immutable=1")
        with self._naming():
            self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        try:
            with self._naming():
                self._check_tables()
                self._topics = self._read_topics()
                self._index = self._read_index()
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> list[BagTopic]:
        """Topics with their number of messages."""
        ids, counts = np.unique(self._index[:, 0], return_counts=True)
        held = dict(zip(ids.tolist(), counts.tolist()))
        found: dict[tuple[str, str, str], BagTopic] = {}
        for number, key in self._topics.items():
            topic = found.setdefault(key, BagTopic(*key, count=0))
            topic.count += held.get(number, 0)
        return list(found.values())

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages of these topics by recording time. Raises BagError if the file is damaged."""
        wanted = [number for number, (name, _, _) in self._topics.items() if name in names]
        rows = self._index[np.isin(self._index[:, 0], wanted)]
        expander = MessageExpander(self.path, self._size)
        for number, time, row in rows[np.argsort(rows[:, 1], kind="stable")].tolist():
            with self._naming():
                found = self._database.execute(
                    "SELECT length(data), CASE WHEN length(data) <= ? THEN data END FROM messages "
                    "WHERE rowid=?",
                    (MAX_CHUNK_BYTES, row),
                ).fetchone()
            size, data = found or (None, None)
            if size is not None and data is None:
                raise BagError(
                    f"The message in row {row} of the bag {self.path} has {size_text(size)}; the most that "
                    f"is read is {size_text(MAX_CHUNK_BYTES)}."
                )
            if not isinstance(data, bytes):
                raise BagError(
                    f"The bag {self.path} is damaged: row {row} of its table messages holds no bytes."
                )
            data = expander.expanded(data, f"row {row} of its table messages")
            yield BagMessage(self._topics[number][0], time, data)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _check_tables(self) -> None:
        self._database.execute("PRAGMA trusted_schema=OFF")
        names = (*TABLES, *_OTHER_TABLES)
        marks = ",".join("?" * len(names))
        found = self._database.execute(
            f"SELECT name, type, sql FROM sqlite_master WHERE name IN ({marks}) "
            "AND type IN ('table', 'view') LIMIT 20",
            names,
        ).fetchall()
        for name, kind, sql in found:
            virtual = str(sql).lstrip().lower().startswith("create virtual")
            generated = any(row[6] for row in self._database.execute(f"PRAGMA table_xinfo({name})"))
            if kind != "table" or virtual or generated:
                what = "view" if kind == "view" else "virtual table" if virtual else "table with formulas"
                raise BagError(
                    f"The bag {self.path} is refused: its {name} is a {what}; rosbag2 writes plain tables."
                )
        missing = set(TABLES) - {name for name, _, _ in found}
        if missing:
            raise BagError(
                f"{self.path} is not a bag, or one that is truncated: it has no table "
                f"{' and no table '.join(sorted(missing))}."
            )

    def _read_topics(self) -> dict[int, tuple[str, str, str]]:
        """Return (name, type, encoding) by id."""
        rows = self._database.execute(
            "SELECT id, name, type, serialization_format FROM topics LIMIT ?", (MAX_TOPICS + 1,)
        ).fetchall()
        if len(rows) > MAX_TOPICS:
            raise BagError(f"The bag {self.path} has more than {MAX_TOPICS} topics, the most that are read.")
        for row in rows:
            if not isinstance(row[0], int) or not all(isinstance(value, str) for value in row[1:]):
                raise BagError(
                    f"The bag {self.path} is damaged: the topic {str(row[1])[:60]!r} has no id, name, type "
                    "or serialization format."
                )
        return {row[0]: row[1:] for row in rows}

    def _read_index(self) -> NDArray[Any]:
        """Topic, time in ns and row of all messages, int64 Nx3, in file order."""
        most = self._size // _MIN_ROW_BYTES
        cursor = self._database.execute(
            "SELECT topic_id, timestamp, rowid FROM messages LIMIT ?", (most + 1,)
        )
        parts = [np.empty((0, 3), np.int64)]
        while rows := cursor.fetchmany(_BATCH):
            try:
                parts.append(np.array(rows, np.int64).reshape(-1, 3))
            except (TypeError, ValueError, OverflowError):
                row = next(row for row in rows if not all(isinstance(value, int) for value in row))
                what = "time" if isinstance(row[0], int) else "topic"
                raise BagError(
                    f"The bag {self.path} is damaged: row {row[2]} of its table messages has the {what} "
                    f"{str(row[1] if what == 'time' else row[0])[:40]}, which is no whole number."
                ) from None
        index = np.concatenate(parts)
        if len(index) > most:
            raise BagError(
                f"The bag {self.path} is damaged: its table messages has more rows than fit into "
                f"{size_text(self._size)}."
            )
        return index

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Convert an error of sqlite to a sentence that names the file."""
        try:
            yield
        except UnicodeDecodeError as error:  # caused by a text in a table
            raise BagError(f"The bag {self.path} is damaged: one of its texts is not UTF-8.") from error
        except sqlite3.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            if isinstance(error, sqlite3.OperationalError) and "unable to open" in reason:
                raise BagError(f"The bag {self.path} cannot be opened: {reason}.") from error
            raise BagError(
                f"The bag {self.path} is truncated or damaged: sqlite says {reason!r}; "
                "`sqlite3 FILE .recover` may save the rest."
            ) from error
