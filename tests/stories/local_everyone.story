# S2, within a server: where the policy says yes to everybody an entry is accepted at once.
config list.accept = everyone
servers a
@mary:a on DESK online
@john:a lists @mary:a
@john:a reads list
    @mary:a accepted online active
@mary:a reads requests
    nobody
