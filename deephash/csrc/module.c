/* The module deephash._resize: `resize` over a picture that Arrow's C data interface shows and a plain buffer. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "resize.h"

/* Source: https://arrow.apache.org/docs/format/CDataInterface.html. */
typedef struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
} ArrowArray;

/* Returns the bytes of an array of n_pixels times 4 bytes, or NULL where it is something else. */
static const uint8_t *bytes_of(const ArrowArray *array, int64_t n_pixels) {
    if (!array->release || array->length != n_pixels || array->offset || array->n_children != 1) return NULL;
    const ArrowArray *bytes = array->children[0];
    if (bytes->length != 4 * n_pixels || bytes->offset || bytes->n_buffers != 2 || bytes->n_children) return NULL;
    return bytes->buffers[1];
}

PyDoc_STRVAR(
    resize_doc,
    "resize(array, width, height, box, bicubic, n_columns, n_rows, scaled) fills the last with a box of the picture\n\n"
    "that the capsule `array` shows, scaled to 3 bytes a pixel."
);

static PyObject *py_resize(PyObject *module, PyObject *arguments) {
    PyObject *capsule;
    Picture picture;
    Box box;
    Py_buffer scaled = {0};
    int bicubic, n_columns, n_rows, failed = -1;
    if (!PyArg_ParseTuple(
            arguments, "Oii(ffff)piiw*", &capsule, &picture.width, &picture.height, &box.x0, &box.y0, &box.x1, &box.y1,
            &bicubic, &n_columns, &n_rows, &scaled))
        return NULL;
    const int good = picture.width > 0 && picture.height > 0 && n_columns > 0 && n_rows > 0 && n_columns <= 1 << 16
        && n_rows <= 1 << 16 && 0 <= box.x0 && box.x0 < box.x1 && box.x1 <= picture.width && 0 <= box.y0
        && box.y0 < box.y1 && box.y1 <= picture.height && scaled.len == 3ll * n_columns * n_rows;
    const ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (!array) goto done;
    picture.pixels = good ? bytes_of(array, (int64_t)picture.width * picture.height) : NULL;
    if (!picture.pixels) {
        PyErr_SetString(PyExc_ValueError, "resize: sizes that do not fit each other");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    failed = resize(picture, box, bicubic ? BICUBIC : BILINEAR, n_columns, n_rows, scaled.buf);
    Py_END_ALLOW_THREADS
    if (failed) PyErr_NoMemory();
done:
    PyBuffer_Release(&scaled);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef METHODS[] = {{"resize", py_resize, METH_VARARGS, resize_doc}, {NULL, NULL, 0, NULL}};

static PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, .m_name = "_resize", .m_doc = "Scales pictures.", .m_size = -1, .m_methods = METHODS};

PyMODINIT_FUNC PyInit__resize(void) {
    if (!__builtin_cpu_supports("avx2")) {
        PyErr_SetString(PyExc_ImportError, "needs a processor with AVX2");
        return NULL;
    }
    return PyModule_Create(&MODULE);
}
