"""What a session is: values, rules and what clients may send. No I/O, no Flask."""
