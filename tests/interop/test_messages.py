"""An observation as chat messages, for either seat."""

import pytest

import steer_env
from steer_env.interop import data_url, messages
from steer_env.types import Message, with_images


def observed(seat, turns=1):
    env = steer_env.make("SteerEscalation-v0")
    env.reset(seed=3)
    for n in range(2 * turns - (seat == "student_0")):
        env.step("See here." if n % 2 == 0 else "No.")
    return env.observe(seat)


def test_the_student_is_the_assistant_in_its_own_seat_and_the_user_in_the_attackers():
    seen = observed("student_0", turns=2)
    assert [m["role"] for m in messages(seen)] == ["user", "assistant", "user"]
    seen = observed("attacker_0", turns=2)
    assert [m["role"] for m in messages(seen, "attacker_0")] == ["assistant", "user", "assistant", "user"]


def test_pictures_are_data_urls_before_the_text_of_their_own_message():
    seen = observed("student_0")
    (message,) = messages(seen)
    pictures = [p["image_url"]["url"] for p in message["content"] if p["type"] == "image_url"]
    assert pictures == [data_url(image) for image in seen["images"]] and pictures
    assert message["content"][-1] == {"type": "text", "text": "See here."}


def test_start_makes_the_end_of_what_the_whole_makes():
    seen = observed("student_0", turns=3)
    assert messages(seen, start=-1) == messages(seen)[-1:]
    assert messages(seen, start=2) == messages(seen)[2:]


def test_images_are_dealt_in_order_and_must_suffice():
    transcript = (Message(0, "a", 1), Message(1, "b"), Message(0, "c", 2))
    assert [shown for _, shown in with_images(transcript, [1, 2, 3])] == [(1,), (), (2, 3)]
    with pytest.raises(ValueError, match="2 images for a transcript that shows 3"):
        with_images(transcript, [1, 2])
    with pytest.raises(ValueError, match="seat='judge'"):
        messages(observed("student_0"), "judge")
