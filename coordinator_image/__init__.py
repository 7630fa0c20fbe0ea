"""The coordinator as a job: ``python -m coordinator_image FOLDER``. Reads files that the launcher wrote, leaves a model."""
