# E7: what a server finds damaged when it starts is compared, since whoever starts reminds, and mended: the first by its bucket, the second
# by what comes first. (What nobody could notice waits for the long watchdog: tests/it/machines/mending.rs.)
config watchdog.short = 30s
config watchdog.long = 2m
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.6s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.9s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.6s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online "here"
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.6s b → a: poll @john:a
    34.9s a → b: push @john:a online active "here"; poll @alice:b
    35.9s to @alice:b: @john:a online active "here"
    39.6s b → a: push @alice:b online active
    40.6s to @john:a: @alice:b online active
damage b @john:a
@alice:b reads list
    @john:a accepted offline active "here", known for 15s
advance 40s
    55.3s to @alice:b: @john:a offline active "here"
    55.6s b → a: reminder (mine 1, yours 1)
    60.6s a → b: reminder (mine 1, yours 1); answer
    65.3s b → a: answer; have
    65.5s a → b: push @john:a online active "here"; differ in 65
    66.6s to @alice:b: @john:a online active "here"
    70.0s b → a: poll @john:a
    70.4s a → b: push @john:a online active "here"
    79.9s a → b: reminder (mine 1, yours 1)
    82.6s b → a: reminder (mine 1, yours 1); answer
    84.8s a → b: answer
@alice:b reads list
    @john:a accepted online active "here", known for 19s
damage b @john:a
@alice:b reads list
    @john:a accepted offline active "here", known for 19s
advance 3m
    94.9s a → b: push @john:a online since 64s "here"
    95.3s to @alice:b: @john:a online since 65s "here"
    95.6s b → a: reminder (mine 1, yours 1)
    100.6s a → b: answer
    130.9s a → b: reminder (mine 1, yours 1)
    135.6s b → a: answer
    154.6s b → a: reminder (mine 1, yours 1)
    159.6s a → b: answer
    189.9s a → b: reminder (mine 1, yours 1)
    194.6s b → a: answer
    214.6s b → a: reminder (mine 1, yours 1)
    219.6s a → b: answer
    249.9s a → b: reminder (mine 1, yours 1)
    254.6s b → a: answer
@alice:b reads list
    @john:a accepted online since 239s "here", known for 175s
