"""The server of a Space: `uvicorn server.app:app`. STEER_ENV and STEER_ATTACKER choose what is played."""

import uvicorn

from steer_env.interop.openenv import make_app

app = make_app()


def main() -> None:
    """Serve on port 8000."""
    uvicorn.run(app, host="0.0.0.0", port=8000)


if __name__ == "__main__":
    main()
