# S2: who was allowed and is refused later is told no more, at once, and their server forgets.
config list.accept = ask
servers a b
@john:a lists @alice:b
@alice:b allows @john:a
@alice:b on LAPTOP online
@john:a on PHONE starts for 1h
advance 30s
    4.0s b → a: accept @john:a by @alice:b
    4.4s a → b: push @john:a offline; poll @alice:b
    9.0s b → a: push @alice:b online active; unpoll @john:a
    10.1s to @john:a: @alice:b online active
@alice:b denies @john:a
@alice:b on LAPTOP busy
advance 20s
    34.0s b → a: deny @john:a by @alice:b
    35.1s to @john:a: @alice:b unknown
    38.4s a → b: unpoll @alice:b
@john:a reads list
    nobody
@alice:b allows @john:a
advance 20s
    51.0s b → a: accept @john:a by @alice:b; reminder (mine 0, yours 0)
    55.4s a → b: answer
