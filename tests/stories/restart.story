# W5: whoever comes back from a restart reminds its peers, and nothing else is said, because both still hold the same.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.0s b → a: poll @john:a
    34.4s a → b: push @john:a online active; poll @alice:b
    35.4s to @alice:b: @john:a online active
    39.0s b → a: push @alice:b online active
    40.1s to @john:a: @alice:b online active
restart a
advance 70s
    51.0s to @john:a: @alice:b online active
    81.4s a → b: reminder (mine 1, yours 1)
    86.0s b → a: answer
    91.0s b → a: push @alice:b online since 61s
    92.1s to @john:a: @alice:b online since 62s
    94.4s a → b: push @john:a online since 64s
    95.4s to @alice:b: @john:a online since 65s
@john:a reads list
    @alice:b accepted online since 89s, known for 28s
