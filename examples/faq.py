"""Customer support without training: a misspelt question finds its answer, a strange one is refused.

python examples/faq.py
"""

import energy_dllm as ed


ANSWERS = {
    "How do I reset my password?": "Choose 'Forgot password' on the sign-in page; a link arrives within a minute.",
    "Where is my parcel?": "The number in your confirmation opens the carrier's page with its last known place.",
    "Can I pay by credit card?": "Yes, by any card of the usual three, and by bank transfer.",
    "How long does delivery take?": "Two working days inland, five abroad.",
    "How do I return an item?": "Print the label in your account and leave the parcel at any post office.",
    "Do you ship to other countries?": "To all countries of Europe, and to some others on request.",
    "How do I change my address?": "Under 'My account', as long as the order has not left the house.",
    "Is there a warranty on my device?": "Two years, from the day it arrives.",
    "How do I cancel my order?": "Reply 'cancel' to the confirmation within an hour.",
    "Why was my payment refused?": "Most often the card's daily limit; your bank sees the reason, we do not.",
}

QUESTIONS = (
    "how do i rest my pasword",
    "wheres my parcle??",
    "Do you shp to othr cuntries",
    "delivery take",
    "cancel _y or_er",
    "Is the moon made of cheese?",
    "I would like to speak to the manager",
)


def main(questions: tuple[str, ...] = QUESTIONS) -> dict[str, str | None]:
    """Ask, print each answer with its confidence, and return the stored question each was taken for."""
    memory = ed.TextMemory(list(ANSWERS))
    understood = {}
    for question in questions:
        # people in a hurry: every other question has errors, and a wrong answer costs less than none
        found = memory.recall(question, unknown="_", clean=0.5, threshold=0.8)
        understood[question] = found.text
        print(
            f"{question!r}\n    stored {found.stored:.3f}, margin {found.margin:+.1f} nats, F = {found.free_energy:.1f}"
        )
        if found.text is None:
            print(f"    not stored; nearest is {found.best!r}")
        else:
            print(f"    {found.text} {ANSWERS[found.text]}")
    # added while running: a new memory, the old one is unchanged
    larger = memory.add("I would like to speak to the manager")
    found = larger.recall("id like to speak too the manger", clean=0.5)
    print(f"one line added: {found.text!r}, stored {found.stored:.3f}; {len(memory)} lines before, {len(larger)} after")
    return understood


if __name__ == "__main__":
    main()
