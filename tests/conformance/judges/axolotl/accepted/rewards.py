def exact(prompts, completions, answer, **kwargs):
    return [float(a in str(c)) for c, a in zip(completions, answer, strict=True)]


def lonely(completions):
    return [0.0 for _ in completions]


def transform(cfg, **kwargs):
    return lambda row, tokenizer=None: {"prompt": row["prompt"], "answer": row["answer"]}
