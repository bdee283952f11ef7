"""REST: one blueprint a resource, and what they share.

Routes are declarations; what a body or a header means is read in `requests`, answers are made in
`responses`, and every rule about sessions lives in the scripts.
"""
