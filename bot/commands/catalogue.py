"""Every command that there is, in the order in which help shows them."""

from bot.commands.registry import Argument, Command, Registry

_TEXT = Argument("text", "what to say", is_required=True, takes_rest=True)
_SCOPE = Argument("scope", "where it holds", choices=("here", "me", "channel"))
_WHO = Argument("who", "an id or a mention of a person, role, room or channel", is_required=True)
_USER = Argument("user", "whom", is_required=True, kind="person")

COMMANDS = Registry(
    (
        Command("ask", "Ask something, or go on with this conversation", answer="public", arguments=(_TEXT,),
                example="ask What is a block server?"),
        Command("new", "Begin a new conversation here", answer="public"),
        Command("stop", "Stop the answer that is being written", answer="public"),
        Command("retry", "Write the last answer again", answer="public",
                arguments=(Argument("temperature", "0 to 2: how much chance there is in it"),),
                example="retry 0.9"),
        Command("continue", "Go on where the length limit cut the last answer off", answer="public"),
        Command("undo", "Take back your last question and its answer", is_personal=True),
        Command("persona show", "Show how I am told to behave here"),
        Command("persona set", "Tell me how to behave in this conversation",
                arguments=(Argument("text", "what I am and how I speak", is_required=True, takes_rest=True),),
                example="persona set You are a patient teacher."),
        Command("persona clear", "Behave as usual again"),
        Command("persona channel", "Tell me how to behave in this whole channel; no text: as usual again",
                arguments=(Argument("text", "what I am and how I speak", takes_rest=True),),
                example="persona channel You help people with their gardens."),
        Command("settings show", "Show what is set here, and by whom"),
        Command("settings set", "Change a setting",
                arguments=(
                    Argument("name", "which setting", is_required=True),
                    Argument("value", "what it should be", is_required=True),
                    _SCOPE,
                ), example="settings set temperature 0.3"),
        Command("settings reset", "Take a setting back, or all of them",
                arguments=(Argument("name", "which setting"), _SCOPE)),
        Command("model list", "The models of this swarm, how complete they are and how fast"),
        Command("quota", "What you may still use, and when there is more", is_personal=True,
                arguments=(Argument("user", "somebody else, for admins", kind="person"),)),
        Command("status", "The swarm, its speed, your session and your place in the queue"),
        Command("contribute", "How to add a server to this swarm",
                arguments=(Argument("memory", "what your machine has free: 8GB", takes_rest=True),),
                example="contribute 16GB"),
        Command("history", "Your conversation here as a file", is_personal=True),
        Command("export", "All that is kept of you, as a file", is_personal=True),
        Command("forget", "Delete your conversation here, or all that is kept of you", is_personal=True,
                arguments=(Argument("what", "how much", choices=("here", "everything")),),
                example="forget everything"),
        Command("privacy", "What is stored, for how long, and who can see it"),
        Command("agree", "Agree to how your words are processed, where the operator asks for it",
                is_personal=True),
        Command("report", "Report an answer that is not right to those who run this bot",
                arguments=(Argument("reason", "what is wrong with it", takes_rest=True),),
                example="report It is rude."),
        Command("help", "This list, or more about one command",
                arguments=(Argument("command", "which one", takes_rest=True),), example="help contribute"),
        Command("admin allow", "Let a person or place use the bot", who="admin",
                arguments=(_WHO,), example="admin allow @ada:example.org"),
        Command("admin deny", "Keep a person or place from using the bot", who="admin",
                arguments=(_WHO,), example="admin deny spam.example.org"),
        Command("admin ban", "Ignore a person for a while", who="admin",
                arguments=(
                    _USER,
                    Argument("hours", "for how long; without it, for good"),
                ), example="admin ban @spammer:example.org 24"),
        Command("admin unban", "Listen to a person again", who="admin",
                arguments=(_USER,), example="admin unban @spammer:example.org"),
        Command("admin grant", "Give credits to a person, or take them", who="admin",
                arguments=(
                    _USER,
                    Argument("credits", "how many; negative takes", is_required=True),
                ), example="admin grant @ada:example.org 5000"),
        Command("admin sessions", "The sessions that servers hold", who="admin", is_personal=True),
        Command("admin kill", "End a session", who="admin",
                arguments=(Argument("session", "its number in `admin sessions`", is_required=True),),
                example="admin kill 7"),
        Command("admin drain", "Take no more questions, finish what runs, and stop", who="admin"),
        Command("admin reports", "Answers that people have reported", who="admin", is_personal=True),
        Command("admin audit", "What admins have done last", who="admin", is_personal=True),
    )
)  # fmt: skip
