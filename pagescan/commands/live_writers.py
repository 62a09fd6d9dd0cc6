"""Samples the writers for the live view of `watch`, while its key w is on."""

from typing import TYPE_CHECKING, Self

from pagescan.model.errors import AccessDeniedError, PagescanError
from pagescan.model.looks import Look
from pagescan.model.memory import DEFAULT_RETURNED, Category
from pagescan.render.live_view.view import LiveView
from pagescan.session.watched import Watched
from pagescan.target.process import Target
from pagescan.tracking.tracking import Tracking

if TYPE_CHECKING:
    from pagescan.attribution.look_writers import WritersByLook
    from pagescan.attribution.writers import WriterWatch

_BUDGET = "w: not with --budget, which bounds the cost: samples cost more"
_USER_ONLY = "w: the kernel's writes, as in read(2), have no writer for this user"


class LiveWriters:
    """Follows the tracking of the live view; samples are taken only while w is on.

    Attributes:
        returned: The categories that a look must return.
        sample_ns: Nothing: it costs nothing until w is pressed.
    """

    returned = DEFAULT_RETURNED | Category.HUGE
    sample_ns = 0

    def __init__(self) -> None:
        """Begin without samples."""
        self._tracking: Tracking | None = None
        self._whole = False
        self._watch: WriterWatch | None = None
        self._by_look: WritersByLook | None = None

    def expect(self, target: Target) -> None:
        """Do nothing: samples are taken only while w is on."""

    def follow(self, tracking: Tracking) -> None:
        """Remember the tracking; observe its looks, if w is on."""
        self._tracking = tracking
        if self._watch is not None:
            self._observe(self._watch, tracking)

    def unfollow(self, tracking: Tracking) -> None:
        """Do nothing: the view ends with its target."""

    def serve(self, view: LiveView, watched: Watched) -> None:
        """Begin or end to take samples, as the view's state says."""
        wanted = view.state.writers and not view.state.paused
        if not wanted:
            self.close()
        elif self._watch is None:
            self._tracking = watched.tracking
            bounded = watched.terms.percent is not None
            view.writers.clear()
            view.writers.note = _BUDGET if bounded else self._begin(watched.tracking)
            if self._watch is None:
                view.state = view.state._replace(writers=False)

    def _begin(self, tracking: Tracking) -> str:
        """Begin to take samples; return what the user should know."""
        from pagescan.attribution.look_writers import WritersByLook
        from pagescan.attribution.samples import paranoid_level
        from pagescan.attribution.writers import WriterWatch

        try:
            watch = WriterWatch(tracking.target.pid)
        except AccessDeniedError:
            level = paranoid_level()
            return f"w: samples are denied: perf_event_paranoid is {level}; run as root"
        except PagescanError as error:
            return f"w: {error}"
        self._watch, self._by_look = watch, WritersByLook(watch)
        self._whole = False  # the next look has writes of before
        self._observe(watch, tracking)
        return _USER_ONLY if watch.user_only else ""

    @staticmethod
    def _observe(watch: "WriterWatch", tracking: Tracking) -> None:
        watch.follow(tracking, growth=False)
        if tracking.toll is not None:
            tracking.toll.sample_seconds = watch.sample_ns / 1e9

    def show(self, view: LiveView, look: Look | None) -> None:
        """Show the writers of a look beside its rows."""
        if self._by_look is None or look is None:
            return
        found = self._by_look.of(look)
        mappings = look.batch.mappings
        view.writers.set_look(
            (
                (mappings[source.mapping].start, source.function, source.pages)
                for source in found.sources
                if source.mapping >= 0
            ),
            whole=self._whole,
        )
        self._whole = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more samples; a second call has no effect."""
        watch, self._watch, self._by_look = self._watch, None, None
        if watch is None:
            return
        watch.close()
        if self._tracking is not None and self._tracking.toll is not None:
            self._tracking.toll.sample_seconds = 0.0
