/* What TensorRT's Python bindings are linked against, so that they can be imported where the library is not: every
   factory gives nothing. Build once for each library that the bindings name, with that name as the soname. */
#define FACTORY(name) void *name(void) { return 0; }
FACTORY(createInferBuilder_INTERNAL) FACTORY(createInferRuntime_INTERNAL) FACTORY(createInferRefitter_INTERNAL)
FACTORY(createNvOnnxParser_INTERNAL) FACTORY(createNvOnnxParserRefitter_INTERNAL)
FACTORY(getPluginRegistry) FACTORY(getBuilderPluginRegistry) FACTORY(initLibNvInferPlugins)
FACTORY(getNvOnnxParserVersion)
/* Parsers of Caffe and UFF, which 8.6 still has. */
FACTORY(_ZN11nvuffparser15createUffParserEv) FACTORY(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
FACTORY(_ZN14nvcaffeparser117createCaffeParserEv) FACTORY(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
