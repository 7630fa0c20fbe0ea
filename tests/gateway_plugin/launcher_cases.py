"""placeholder"""

CHECKS = {"execution_of_agreement", "launcher"}
LAUNCHERS_OWN = set()
