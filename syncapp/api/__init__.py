"""REST: one blueprint per resource, and the modules that they share.

Routes are declarations. `requests` reads bodies and headers, `responses` makes responses, and every rule about sessions
stands in the scripts.
"""
