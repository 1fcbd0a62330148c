# S2: a policy may answer for everybody.
config list.accept = everyone
servers a b
@john:a lists @alice:b
advance 20s
@john:a reads list
