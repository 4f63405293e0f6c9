"""The doctor: looks at a broker and says what would go wrong. Floor 6.

`facts` gathers, `checks` judges: pure functions from facts to findings, each with its evidence and what mends it.
"""
