# E7: what a server finds damaged when it starts is compared, since whoever starts reminds, and mended: the first by its bucket, the second
# by what comes first. (What nobody could notice waits for the long watchdog: tests/it/machines/mending.rs.)
config watchdog.short = 30s
config watchdog.long = 2m
servers a b
@john:a lists @alice:b
@alice:b lists @john:a
advance 30s
    4.0s b → a: push @alice:b offline; invite @alice:b for @john:a
    4.4s a → b: push @john:a offline; unpoll @alice:b; invite @john:a for @alice:b; accept @alice:b by @john:a
    9.0s b → a: unpoll @john:a; accept @john:a by @alice:b
@john:a on PHONE online "here"
@john:a on PHONE starts for 1h
@alice:b on LAPTOP online
@alice:b on LAPTOP starts for 1h
advance 20s
    34.0s b → a: poll @john:a
    34.4s a → b: push @john:a online active "here"; poll @alice:b
    35.4s to @alice:b: @john:a online active "here"
    39.0s b → a: push @alice:b online active
    40.1s to @john:a: @alice:b online active
damage b @john:a
@alice:b reads list
    @john:a accepted offline active "here", known for 15s
advance 40s
    55.0s b → a: reminder (mine 1, yours 1)
    55.3s to @alice:b: @john:a offline active "here"
    59.4s a → b: reminder (mine 1, yours 1); answer
    60.0s b → a: answer; have
    64.4s a → b: push @john:a online active "here"; differ in 65
    65.0s b → a: poll @john:a
    65.4s to @alice:b: @john:a online active "here"
    69.4s a → b: push @john:a online active "here"
    79.4s a → b: reminder (mine 1, yours 1)
    81.0s b → a: answer
@alice:b reads list
    @john:a accepted online active "here", known for 20s
damage b @john:a
@alice:b reads list
    @john:a accepted offline active "here", known for 20s
advance 3m
    94.4s a → b: push @john:a online since 64s "here"
    95.0s b → a: reminder (mine 1, yours 1)
    95.3s to @alice:b: @john:a online since 65s "here"
    99.4s a → b: answer
    130.4s a → b: reminder (mine 1, yours 1)
    134.0s b → a: answer
    135.4s a → b: reminder (mine 1, yours 1)
    139.0s b → a: answer
    154.0s b → a: reminder (mine 1, yours 1)
    158.4s a → b: answer
    189.4s a → b: reminder (mine 1, yours 1)
    193.0s b → a: answer
    199.4s a → b: reminder (mine 1, yours 1)
    204.0s b → a: answer
    214.0s b → a: reminder (mine 1, yours 1)
    218.4s a → b: answer
    249.4s a → b: reminder (mine 1, yours 1)
    253.0s b → a: answer
    259.4s a → b: reminder (mine 1, yours 1)
    264.0s b → a: answer
@alice:b reads list
    @john:a accepted online since 239s "here", known for 175s
