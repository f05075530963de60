"""Customer support: the memory finds the fact, the energy writes a sentence around it, and the fact is in it.

python examples/support.py

A question is recalled from a FAQ by `TextMemory`; where nothing is stored the answer says so. Else a model writes a
passage in which the fact is evidence, so that no answer is without it. Limits: the words around the fact are those of a
small model that has read children's stories, and mean nothing; what may be shown to a customer is the fact, which is
one of the FAQ's, letter by letter.
"""

import energy_dllm as ed


FACTS = {
    "How do I reset my password?": "use the link on the sign-in page",
    "Where is my parcel?": "the number in the letter shows the place",
    "Can I pay by credit card?": "yes, by any card",
    "How long does delivery take?": "two days",
    "How do I return an item?": "leave it at any post office",
    "How do I change my address?": "in your account",
    "Is there a warranty on my device?": "two years",
    "How do I cancel my order?": "write to us within an hour",
}

QUESTIONS = {
    "how do i rest my pasword": "How do I reset my password?",
    "wheres my parcle??": "Where is my parcel?",
    "can i pay with card": "Can I pay by credit card?",
    "how long dos delivry take": "How long does delivery take?",
    "return an item": "How do I return an item?",
    "chnge my adress": "How do I change my address?",
    "is there waranty on the device": "Is there a warranty on my device?",
    "cancel _y or_er": "How do I cancel my order?",
    "Is the moon made of cheese?": None,
    "I would like to speak to the manager": None,
    "Do you sell bicycles?": None,
    "What is the capital of France?": None,
}


def answer(model: ed.EnergyDLLM, fact: str, *, length: int = 40, seed: int = 0) -> str:
    """A passage with the fact in it, as given; six tokens before it and all behind it are free."""
    return ed.infill(model, f"The answer is[6] {fact}.[*]", length=length, seed=seed).texts[0]


def main(model: ed.EnergyDLLM | None = None, questions: dict[str, str | None] = QUESTIONS, length: int = 40):
    """Ask, print, and return the share of questions understood, of strange ones refused, of answers with the fact."""
    model = ed.load("stories") if model is None else model
    memory = ed.TextMemory(list(FACTS))
    right, refused, facts = [], [], []
    for n, (question, meant) in enumerate(questions.items()):
        found = memory.recall(question, unknown="_", clean=0.5, threshold=0.8)
        (refused if meant is None else right).append(found.text == meant)
        if found.text is None:
            print(f"{question!r}\n    not stored ({found.stored:.2f})")
            continue
        written = answer(model, FACTS[found.text], length=length, seed=n)
        facts.append(FACTS[found.text] in written)
        print(f"{question!r}\n    {found.text} ({found.stored:.2f})\n    {written!r}")
    share = lambda found: sum(found) / max(1, len(found))
    print(f"understood {share(right):.2f}, refused {share(refused):.2f}, with the fact {share(facts):.2f}")
    return share(right), share(refused), share(facts)


if __name__ == "__main__":
    main()
