"""The participant as a job: ``python -m participant_image FOLDER``. Reads files that the launcher wrote, only dials out."""
