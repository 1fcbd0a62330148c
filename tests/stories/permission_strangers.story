# A stranger's poll is answered neither for somebody who is there nor for somebody who is not.
servers a b(foreign)
@john:a on PHONE online
b sends a poll @john:a
b sends a poll @nobody:a
advance 20s
@john:a on PHONE busy
advance 20s
