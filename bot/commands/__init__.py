"""What people can ask the bot to do beside answering: declared once, for every platform.

`registry` holds the declarations and reads `!` lines; `catalogue` declares; the other files carry out.
"""
