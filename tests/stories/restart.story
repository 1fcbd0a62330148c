# W5: whoever comes back from a restart reminds its peers, and nothing else is said, because both still hold the same.
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.6s b → a: poll @john:a
    34.9s a → b: push @john:a online active; poll @alice:b
    35.9s to @alice:b: @john:a online active
    39.6s b → a: push @alice:b online active
    40.6s to @john:a: @alice:b online active
restart a
advance 70s
    51.0s to @john:a: @alice:b online active
    81.9s a → b: reminder (mine 1, yours 1)
    86.6s b → a: answer
    91.3s b → a: push @alice:b online since 61s
    92.3s to @john:a: @alice:b online since 62s
    94.9s a → b: push @john:a online since 64s
    95.9s to @alice:b: @john:a online since 65s
@john:a reads list
    @alice:b accepted online since 89s, known for 28s
