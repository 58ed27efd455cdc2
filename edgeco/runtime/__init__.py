"""The run side: models, streams, sources, preprocessing, pacing. Import what is needed from its modules."""
