"""One service layer, many faces: the command line and the API call these, never the store or Prefect directly."""
