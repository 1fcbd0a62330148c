# S2, within a server: whom the other lists in turn is accepted at once, and without lists nobody is.
servers a
@john:a on PHONE online
@john:a lists @mary:a
@john:a reads list
    @mary:a asked unknown
@mary:a on DESK online
@mary:a lists @john:a
@john:a reads list
    @mary:a accepted online active
@mary:a reads list
    @john:a accepted online active
@mary:a reads requests
    nobody
