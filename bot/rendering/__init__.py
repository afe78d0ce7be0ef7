"""How an answer looks: cut into messages, closed where it is not complete, turned into HTML. Pure.

`fences` reads code fences, `splitting` cuts, `preview` shows what is there so far, `html` is for Matrix.
"""
