# S2: who was allowed and is refused later is told no more, at once, and their server forgets.
config list.accept = ask
servers a b
@john:a lists @alice:b
@alice:b allows @john:a
@alice:b on LAPTOP online
@john:a on PHONE starts for 1h
advance 30s
    4.6s b → a: accept @john:a by @alice:b
    4.9s a → b: push @john:a offline; poll @alice:b
    9.6s b → a: push @alice:b online active; unpoll @john:a
    10.6s to @john:a: @alice:b online active
@alice:b denies @john:a
@alice:b on LAPTOP busy
advance 20s
    34.6s b → a: deny @john:a by @alice:b
    35.7s to @john:a: @alice:b unknown
    39.6s a → b: unpoll @alice:b
@john:a reads list
    nobody
@alice:b allows @john:a
advance 20s
    54.6s b → a: accept @john:a by @alice:b
    62.6s b → a: reminder (mine 0, yours 0)
    67.6s a → b: answer
