"""The page of `steer-env serve`: forms and no script; what people and models wrote is escaped."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from steer_env.agents.base import Agent
from steer_env.env import InvalidUtterance
from steer_env.extras import need
from steer_env.images import MAX_BYTES, Image
from steer_env.play.recorded import pictures_of
from steer_env.records import Row, verdict_row
from steer_env.render import counted
from steer_env.report.dialogues import entries
from steer_env.scenarios import KINDS, Scenario
from steer_env.serve.guard import Guard
from steer_env.serve.labels import Sheet
from steer_env.serve.seats import Seat, Store, open_attack, scenario_of
from steer_env.spaces import MAX_IMAGES
from steer_env.types import ATTACKER, STUDENT

need("starlette", "serve")
need("python_multipart", "serve")
from starlette.applications import Starlette  # noqa: E402
from starlette.concurrency import run_in_threadpool  # noqa: E402
from starlette.datastructures import FormData, UploadFile  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

#: Dialogues that are kept in memory; the oldest is forgotten.
MOST_OPEN = 64
#: The same of pictures.
MOST_PICTURES = 512
#: Longest label of an attack of one's own.
MOST_LETTERS = 2000


@dataclass
class House:
    """All that the page serves.

    Attributes:
        make: Returns a new environment.
        source: Where its dialogues come from.
        attacker: Plays the user against a person.
        student: Is attacked by a person.
        store: Keeps what has ended.
        sheets: Name of a run -> its sheet.
        metas: Name of a run -> what its folder says of itself, for the pictures.
        first: First seed.
        names: What the page says of environment, student, attacker and judge.
    """

    make: Callable[[], Any]
    source: Any
    attacker: Agent
    student: Agent
    store: Store
    sheets: Mapping[str, Sheet] = field(default_factory=dict)
    metas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first: int = 0
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seats: dict[str, Seat] = {}
        self.images: dict[str, Image] = {}
        self.lock = threading.Lock()  # models and files take one at a time

    def begin(self, seat: str, scenario: Scenario | None = None) -> str:
        """Start a dialogue, of one's own or the next one of the environment, and return its name."""
        with self.lock:
            taken = [one.seed + 1 for one in self.seats.values() if one.human == seat]
            seed = max([self.store.next_seed(seat, self.first), *taken])
            other = self.attacker if seat == STUDENT else self.student
            made = Seat(self.make(), seat, other, seed, scenario or scenario_of(self.source, seed))
            name = secrets.token_urlsafe(9)
            self.seats[name] = made
            for old in list(self.seats)[:-MOST_OPEN]:
                del self.seats[old]
            return name

    def say(self, name: str, text: str, images: list[Image], finish: bool) -> None:
        """Speak, or end an attack of one's own; what ends is kept."""
        seat = self.seat(name)
        with self.lock:
            if seat.ended:
                return
            if finish:
                seat.finish()
            else:
                seat.say(text, images)
            if seat.ended:
                self.store.save(seat)

    def seat(self, name: str) -> Seat:
        """Return a dialogue by name."""
        if name not in self.seats:
            raise HTTPException(404, "There is no such dialogue; what had ended is in the folder")
        return self.seats[name]

    def keep(self, image: Image) -> str:
        """Make a picture available to the page and return its address."""
        self.images[image.digest] = image
        for old in list(self.images)[:-MOST_PICTURES]:
            del self.images[old]
        return f"/picture/{image.digest}"

    def pictures(self, name: str, row: Row) -> list[str]:
        """Return the addresses of a recorded dialogue's pictures; none where they cannot be made again."""
        return [self.keep(image) for image in pictures_of(self.metas.get(name, {}))(row)]


def make_app(house: House, *, token: str | None = None, loopback: bool = True) -> Any:
    """Return the ASGI application.

    Args:
        house: What it serves.
        token: Who has it may come in; None lets in everybody who reaches the port.
        loopback: Answer only to the names of this machine, so that no foreign page reaches it by a name of
            its own.
    """
    page = Page(house)
    routes = [
        Route("/", page.home),
        Route("/play", page.begin, methods=["POST"]),
        Route("/play/{name}", page.show),
        Route("/play/{name}", page.say, methods=["POST"]),
        Route("/label/{run}", page.label),
        Route("/label/{run}", page.record, methods=["POST"]),
        Route("/picture/{digest}", page.picture),
        Route("/serve.css", page.style),
    ]
    app = Starlette(routes=routes, exception_handlers={ValueError: page.refuse, HTTPException: page.missing})
    return Guard(app, token=token, loopback=loopback, most_bytes=MAX_BYTES * MAX_IMAGES + (1 << 20))


class Page:
    """The routes."""

    def __init__(self, house: House) -> None:
        self.house = house
        jinja2 = need("jinja2", "serve")
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("steer_env.serve", "assets"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        )
        self.templates.filters["counted"] = counted

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        made = self.templates.get_template(template).render(names=self.house.names, **values)
        return HTMLResponse(made, status)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Say what was wrong with what was sent."""
        return self.render("error.html", 400, error=str(error), back=request.url.path)

    async def missing(self, request: Request, error: Exception) -> Response:
        """Say that there is no such page."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = error.detail if isinstance(error, HTTPException) else str(error)
        return self.render("error.html", status, error=said, back="/")

    async def style(self, request: Request) -> Response:
        """Return the style sheet: the report's, and what is of these pages alone."""
        report = resources.files("steer_env.report") / "assets" / "report.css"
        own = resources.files("steer_env.serve") / "assets" / "serve.css"
        return PlainTextResponse(report.read_text("utf-8") + own.read_text("utf-8"), media_type="text/css")

    async def picture(self, request: Request) -> Response:
        """Return a picture that was shown on a page."""
        image = self.house.images.get(request.path_params["digest"])
        if image is None:
            raise HTTPException(404, "There is no such picture")
        return Response(await run_in_threadpool(image.png), media_type="image/png")

    async def home(self, request: Request) -> Response:
        """Offer the seats and the runs to label."""
        store = self.house.store
        kept = {seat: len(store.rows(seat)) for seat in (STUDENT, ATTACKER)}
        return self.render(
            "home.html",
            kinds=KINDS,
            kept=kept,
            folders=store.folders,
            file=store.file,
            sheets=self.house.sheets,
        )

    async def begin(self, request: Request) -> Response:
        """Start a dialogue."""
        async with request.form() as form:
            own = None
            if _text(form, "seat") == "own":
                own = open_attack(
                    kind=_text(form, "kind"),
                    goal=_text(form, "goal"),
                    strategy=_text(form, "strategy"),
                    category=_text(form, "category"),
                )
            seat = STUDENT if _text(form, "seat") == "student" else ATTACKER
        return RedirectResponse(f"/play/{await run_in_threadpool(self.house.begin, seat, own)}", 303)

    async def show(self, request: Request) -> Response:
        """Show a dialogue: to the student's seat neither goal nor verdict, while it runs."""
        seat = self.house.seat(request.path_params["name"])
        return await run_in_threadpool(self._seat, seat)

    def _seat(self, seat: Seat, error: str = "", text: str = "") -> Response:
        house, student = self.house, seat.human == STUDENT
        messages = [(m.role, m.content, [house.keep(i) for i in shown]) for m, shown in seat.messages()]
        draft, pictures = seat.draft()
        knows = not student or seat.ended
        scenario = seat.core.scenario
        assert scenario is not None
        hidden = {"kind": scenario.kind, "goal": scenario.goal, "strategy": scenario.strategy,
                    "technique": scenario.technique, "category": scenario.category}  # fmt: skip
        turns = []
        if knows:
            rows = [{"user": t.turn.user, "reply": t.turn.reply, "verdict": verdict_row(t.turn.verdict)}
                    for t in seat.results]  # fmt: skip
            ((_, entry),) = entries({"": [{"turns": rows, "seed": seat.seed}]}, 1)
            turns = entry["turns"]
        return self.render(
            "seat.html",
            400 if error else 200,
            student=student,
            own=seat.own,
            ended=seat.ended,
            waits=seat.waits,
            messages=messages,
            draft=text or draft,
            pictures=[house.keep(i) for i in pictures],
            secrets={k: v for k, v in hidden.items() if v} if knows else {},
            turns=turns,
            error=error or (f"The other seat has no answer: {seat.error}" if seat.error else ""),
            folder=house.store.folders[seat.human],
            most=MAX_IMAGES,
        )

    async def say(self, request: Request) -> Response:
        """Speak for the person."""
        name = request.path_params["name"]
        seat = self.house.seat(name)
        async with request.form(max_files=MAX_IMAGES, max_fields=8) as form:
            text, finish = _text(form, "text", limit=None), "finish" in form
            files = [f for f in form.getlist("pictures") if isinstance(f, UploadFile) and f.filename]
            data = [await one.read(MAX_BYTES + 1) for one in files]
        try:
            images = [await run_in_threadpool(Image.from_bytes, one, "upload") for one in data]
            await run_in_threadpool(self.house.say, name, text, images, finish)
        except (InvalidUtterance, ValueError) as error:  # a picture that is none, a text that is too long
            return self._seat(seat, str(error), text)
        return RedirectResponse(f"/play/{name}", 303)

    def _sheet(self, request: Request) -> tuple[str, Sheet]:
        name = request.path_params["run"]
        if name not in self.house.sheets:
            raise HTTPException(404, "There is no such run to label")
        return name, self.house.sheets[name]

    async def label(self, request: Request) -> Response:
        """Show the next turn to label, without the judge's verdict and without other people's labels."""
        name, sheet = self._sheet(request)
        who = request.query_params.get("annotator", "").strip()[:100]
        return await run_in_threadpool(self._label, name, sheet, who)

    def _label(self, name: str, sheet: Sheet, who: str) -> Response:
        found = sheet.next(who) if who else None
        done = sheet.done(who) if who else 0
        shown: dict[str, Any] = {"turns": [], "pictures": [], "row": None, "number": 0}
        if found is not None:
            row, number = found
            said = [(str(t["user"]), str(t["reply"])) for t in row["turns"][:number]]
            shown = {"turns": said, "pictures": self.house.pictures(name, row), "row": row, "number": number}
        return self.render(
            "label.html", run=name, who=who, done=done, total=len(sheet.turns), path=sheet.path, **shown,
            alpha=sheet.agreement() if who and done else None, apart=sheet.apart(who) if who else [],
        )  # fmt: skip

    async def record(self, request: Request) -> Response:
        """Keep a label."""
        name, sheet = self._sheet(request)
        async with request.form(max_fields=8) as form:
            who, label = _text(form, "annotator", limit=100), _text(form, "label")
            place = _text(form, "seed"), _text(form, "turn")
        if label not in ("0", "1") or not all(one.isdecimal() for one in place):
            raise ValueError(f"label={label!r} for seed and turn {place!r}, expected 1 or 0 and two numbers")
        await run_in_threadpool(self._record, sheet, who, (int(place[0]), int(place[1])), label == "1")
        return RedirectResponse(f"/label/{quote(name, safe='')}?annotator={quote(who)}", 303)

    def _record(self, sheet: Sheet, who: str, unit: tuple[int, int], label: bool) -> None:
        with self.house.lock:
            sheet.record(who, unit, label)


def _text(form: FormData, key: str, limit: int | None = MOST_LETTERS) -> str:
    """Return a field of a form as text.

    Raises:
        ValueError: If it is longer than `limit`.
    """
    value = form.get(key)
    text = value.strip() if isinstance(value, str) else ""
    if limit is not None and len(text) > limit:
        raise ValueError(f"{key} has {len(text)} characters, expected at most {limit}")
    return text


def sheet_path(folder: Path, name: str) -> Path:
    """Return where the labels of a run are kept."""
    target = folder / "labels" / f"{name}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
